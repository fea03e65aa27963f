"""The models a user can name, and their files: rows, download, verification. No torch."""
