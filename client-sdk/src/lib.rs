//! The SDK that app developers depend on.
