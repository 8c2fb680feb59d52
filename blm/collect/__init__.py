"""Collect: demonstrations from simulated and real robots, as LeRobot datasets."""
