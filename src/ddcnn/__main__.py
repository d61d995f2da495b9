"""``python -m ddcnn`` is the command ``ddcnn``."""

from ddcnn.cli import main

if __name__ == "__main__":
    main()
