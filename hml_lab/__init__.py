"""What speaks to people: statistics, tables, figures, studies, notebooks and the command line."""
