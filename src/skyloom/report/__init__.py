"""What a person looks at: figures and the HTML report of a run."""
