"""A store as the viewer shows it: what is in it, where it lies on the sky, and what each epoch saw of a place."""
