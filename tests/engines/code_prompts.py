"""Prompts of Python code whose continuation repeats what stands in them."""

PROMPTS = (
    """class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __eq__(self, other):
        return self.x == other.x and self.y == other.y

    def __ne__(self, other):
        return not self == other

    def __lt__(self, other):
        return self.x < other.x and self.y < other.y

    def __le__(self, other):
        return self.x""",
    """def test_add(self):
        self.assertEqual(add(1, 2), 3)
        self.assertEqual(add(2, 2), 4)
        self.assertEqual(add(3, 2), 5)

    def test_sub(self):
        self.assertEqual(sub(1, 2), -1)
        self.assertEqual(""",
)
