"""Command lines: flags, user errors, progress, tables, and the commands to run next."""
