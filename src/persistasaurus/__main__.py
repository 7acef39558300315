"""`python -m persistasaurus` is the command `persistasaurus`."""

from persistasaurus.cli import main

if __name__ == "__main__":
    main()
