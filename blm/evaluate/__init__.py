"""Closed-loop success over robots × tasks, and the reports that show it."""
