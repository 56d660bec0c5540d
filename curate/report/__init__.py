"""Reports: a diff and a version as one HTML file for people, and a diff as Markdown for a pull request."""
