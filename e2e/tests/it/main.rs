//! The platform as its users meet it: the built binary, real processes, a real database, and what goes wrong with them.

mod alarms;
mod backlog;
mod catch_up;
mod change_of_bus;
mod checker;
mod climb;
mod conversations;
mod dead_letters;
mod faults;
mod lifecycle;
mod manifest;
mod migrate;
mod processes;
mod refusals;
mod rotation;
mod schedule_faults;
mod schedules;
mod serve;
mod settings;
mod spread_out;
mod stack;
mod switched_off;
mod tour;
mod workers;
