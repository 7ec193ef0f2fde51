//! The resource types as users write them, their schema and validation, and the settings that a manifest means.
//!
//! Here: `TodoPlatform` ([`platform`]) and `RecurringSchedule` ([`schedule`]) with defaults, bounds and CEL rules; the
//! CRDs made from them ([`crd_yaml`]); what CEL cannot say ([`TodoPlatform::validate`], [`RecurringSchedule::validate`]); reading
//! manifests with a position for each mistake ([`manifest`]); what a manifest means for a process ([`settings`]), and a
//! schedule for its platform ([`declared`]).
//! Not here: when occurrences are (`todo-recurrence`), what is done about a resource (the operator), and any I/O.
//!
//! A manifest's way: text → YAML with positions → checked against the CRD's own schema, the one that the API server
//! uses → typed → `validate` → [`manifest::Manifest`] → [`Settings`] and schedules. A mistake on the way becomes one
//! line with file, line, column, field, what is wrong and what is allowed; every mistake of a stage is reported.
//!
//! The CEL rules are evaluated in this crate's tests and compared with `validate`; that a real API server takes the
//! CRDs and refuses what it should is tested with the operator.

pub mod declared;
mod generate;
pub mod manifest;
pub mod platform;
mod quantity;
mod scalar;
pub mod schedule;
mod schema;
pub mod settings;
mod validate;
mod words;
mod yaml;

pub use declared::DeclaredSchedule;
pub use generate::crd_yaml;
pub use manifest::{Manifest, ManifestError};
pub use platform::{LogFormat, TodoPlatform, TodoPlatformSpec};
pub use quantity::are_equal;
pub use schedule::{CatchUpPolicy, MonthEnd, Overlap, Priority, RecurringSchedule, RecurringScheduleSpec};
pub use settings::{ApiSettings, AuthSettings, Role, Settings};
pub use validate::Problem;
pub use words::nearest;

/// The API group of both kinds.
pub const GROUP: &str = "todoplatform.dev";

/// The version of both kinds, as it stands after the group.
pub const VERSION: &str = "v1alpha1";

/// The zone of civil times that name none.
fn default_time_zone() -> String {
    "UTC".to_owned()
}
