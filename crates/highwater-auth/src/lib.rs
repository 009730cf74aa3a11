//! Who may do what on a Highwater server: keys, tokens and the claims within them.
