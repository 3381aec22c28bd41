"""What is on the screen as files: made in memory and handed to the browser, never written here."""
