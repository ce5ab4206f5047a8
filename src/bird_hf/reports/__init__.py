"""Reports about a Med-GRIT folder or a build: HTML pages, figures and contact sheets."""
