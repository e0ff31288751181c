"""Records that leave this machine and that come to it: tables for other programs, bundles, other tools' files."""
