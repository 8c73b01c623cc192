"""What model files may be: a module or folder per format."""
