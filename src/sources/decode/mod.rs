//! How frames become readings.
