"""The one-machine test cluster behind `slurm/testcluster`. Standard library only: it runs before anything is installed."""
