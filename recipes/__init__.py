"""Runs, one module each: a recipe is ordinary Python that says what is trained, on what, and for how long."""
