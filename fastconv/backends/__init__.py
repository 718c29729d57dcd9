"""The engines' floor: the contract that every engine keeps, and one file or folder for each engine."""
