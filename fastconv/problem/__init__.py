"""What a problem is: geometry, parameters, arrays, errors, phases, planes, the reference. Imports no other layer."""
