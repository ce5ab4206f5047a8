"""A published Med-GRIT folder: writing, reading, counting and checking it."""
