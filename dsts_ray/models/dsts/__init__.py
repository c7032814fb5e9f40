"""Dynamic Spatio-Temporal Specialization (DSTS, ECCV 2022), one idea of the paper a file."""
