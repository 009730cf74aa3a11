//! One statement of somebody who is not trusted, within limits.
