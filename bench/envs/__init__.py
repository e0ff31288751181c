"""The environments that engines and methods run in: built once, named by what they hold."""
