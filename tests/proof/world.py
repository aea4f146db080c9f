"""A world that a query is asked of: rules, and the facts that must not come of them.

A rule says: if all of these facts hold, so does that one. `k(t)` is the fact that the
attacker knows t; `l(t)`, that it knows t later, when key files have leaked.
"""

from dataclasses import dataclass, field

from noise import function

# All functions, with the number of their arguments. The attacker can compute each.
PUBLIC = {
    "hkdf1": 2, "hkdf2": 2, "hkdf3": 2, "hash": 2, "aead": 4, "g": 1, "dh": 2,
    "ek": 1, "ct": 2, "ss": 2, "reject": 2, "derived": 2, "siphash": 3, "name": 1,
    "prologue": 2, "classical": 1, "hybrid": 1, "data": 1,
}  # fmt: skip
CONSTANTS = [
    "empty", "n0", "n1", "psk", "hint", "chachapoly", "aesgcm", "any", "none",
    "kind_open", "kind_opened", "ours", "stolen", "i0", "r0", "r1",
]  # fmt: skip
# What the attacker cannot make: key files, and what an end draws or sends.
PRIVATE = {"file": 1, "x": 3, "dk": 3, "y": 5, "coins": 5, "from_i": 3, "from_r": 5, "quiet": 3}


@dataclass(frozen=True)
class Assumptions:
    """What the attacker can do beyond the wire, and what a negative control leaves out."""

    x25519_broken: bool = False
    mlkem_broken: bool = False
    # When the file of every key leaks: "never" (but for the key `stolen`), "later" (after
    # all sessions), "at once".
    file_leaks: str = "never"
    without: tuple = ()


@dataclass
class World:
    assume: Assumptions
    clauses: list = field(default_factory=list)
    patterns: dict = field(default_factory=dict)

    def rule(self, premises, *conclusions):
        for conclusion in conclusions:
            self.clauses.append(" | ".join([f"~{p}" for p in premises] + [conclusion]))

    def attack(self, *facts):
        """All these facts at once are an attack. Several attacks: any of them."""
        self.clauses.append(" | ".join(f"~{fact}" for fact in facts))

    def unlike(self, pattern, term):
        """The fact that the term has not this form; `_` stands for anything."""
        if pattern not in self.patterns:
            self.patterns[pattern] = f"unlike{len(self.patterns)}"
            self.define_unlike(pattern)
        return f"{self.patterns[pattern]}({term})"

    def define_unlike(self, pattern):
        name, arguments = parse(pattern)
        for constant in CONSTANTS:
            if constant != name:
                self.rule([], self.unlike(pattern, constant))
        for other, count in (PUBLIC | PRIVATE).items():
            variables = [f"V{i}" for i in range(count)]
            term = function(other)(*variables)
            if other != name:
                self.rule([], self.unlike(pattern, term))
                continue
            for variable, argument in zip(variables, arguments, strict=True):
                if argument != "_":
                    self.rule([self.unlike(argument, variable)], self.unlike(pattern, term))

    def text(self):
        """The world as a problem for a theorem prover, in TPTP's language."""
        numbered = enumerate(self.clauses)
        return "".join(f"cnf(c{i},axiom,({clause})).\n" for i, clause in numbered)


def parse(term):
    """A term's name and its arguments."""
    name, bracket, rest = term.partition("(")
    arguments, depth, start = [], 0, 0
    if bracket:
        rest = rest[:-1] + ","
        for i, letter in enumerate(rest):
            depth += (letter == "(") - (letter == ")")
            if letter == "," and depth == 0:
                arguments.append(rest[start:i])
                start = i + 1
    return name, arguments
