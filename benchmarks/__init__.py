"""Speed, measured as ratios within one run: ``python -m benchmarks.<name>`` prints a table and writes
``my_results/benchmarks/<name>.csv`` with hardware and versions
(``--output results/benchmarks`` publishes it)."""
