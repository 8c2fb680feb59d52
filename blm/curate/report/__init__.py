"""Describe a build to people: the data card that lies next to its shards."""
