"""What may be opened: a stranger's model is judged by its files before anything of it is loaded."""
