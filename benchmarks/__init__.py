"""Speed, measured as ratios within one run: ``python -m benchmarks.<name>`` prints a table and writes
``results/benchmarks/<name>.csv`` with hardware and versions."""
