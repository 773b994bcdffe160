//! Tests of the dispatcher against a real replicated state whose commits come late: single cases, and a model that lets
//! consumers, other groups and masters come and go at random.

mod world;

mod cases;
mod model;
mod order;
