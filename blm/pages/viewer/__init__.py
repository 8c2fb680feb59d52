"""A page to look at recorded datasets: videos, curves and sub-tasks, one episode at a time."""
