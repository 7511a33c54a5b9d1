"""`python -m slimsearch` is `slimsearch`."""

from slimsearch.cli import main

if __name__ == "__main__":
    main()
