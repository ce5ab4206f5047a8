"""Training of any vision-language model of transformers on Med-GRIT rows, through a dialect."""
