"""Many CPUs, simulated: the text of a threaded run, compiled as ever, on as many CPUs as a machine file describes.

Each simulated CPU runs its thread on a stack of its own, in one host thread. Before every load, store and atomic
operation the compiled code tells the simulator, which adds what the access costs to that CPU's clock and lets the CPU
with the smallest clock go on. So locks, retries and aborts happen for real, in simulated time, and every run is the
same to the bit. docs/simulation.md says what is modelled, what is not, and how far the figures may be trusted.
"""
