"""Med-GRIT in the authors' original JSON format: import and export."""
