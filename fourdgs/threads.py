"""How threads wait; imported before anything that loads OpenMP, which reads this once."""

import os

# OpenMP threads spin while they wait. Where other work holds a core, a training step of a small scene then takes
# twenty times as long (measured: 157 against 9 ms); sleeping threads cost some microseconds a wake-up.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
