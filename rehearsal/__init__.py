"""A field rehearsal: a small mobile core, infections in it, a sensor on its mirror, and ESM."""
