"""The simulators behind rlft's VecEnv contract. Importing this package imports no simulator."""
