"""Real robots through LeRobot's drivers: finding them, opening them, and driving them in the one control loop."""
