//! Conversations over a session: templates, roles, tools. Not built yet.
