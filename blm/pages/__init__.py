"""What people look at, whichever room it comes from: pages, charts, proportions with their intervals."""
