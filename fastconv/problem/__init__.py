"""The ground floor: errors, geometry, array rules, phases and the reference. It imports nothing above it."""
