"""Many CPUs, simulated: the text of a threaded run, compiled as usual, on as many CPUs as a machine file describes.

Each simulated CPU runs its thread on a stack of its own, in one host thread. Before every load, store and atomic
operation the compiled code calls the simulator, which adds the cost of the access to that CPU's clock and then runs the
CPU with the smallest clock. So locks, retries and aborts really happen, in simulated time, and every run is identical
to the bit. docs/simulation.md says what is modelled, what is not, and how far the figures can be trusted.
"""
