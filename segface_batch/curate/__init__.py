"""What one does with a finished or growing output: ask it with SQL, look at an image of it."""
