"""The browser viewer: rollouts as compact data, one page that shows them, a server on the loopback address."""
