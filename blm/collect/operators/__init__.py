"""People as agents of the control loop: leader arm, gamepad, browser page, and a policy with human take-over."""
