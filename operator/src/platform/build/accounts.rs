//! Service accounts: one for each component, the migration and the platform's own database. None may do anything, and
//! none has a token in its pods: no process of a platform talks to the API server.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::database::{self, Place};
use super::draft::Draft;
use crate::child::{Child, Kind, Tenure};

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let account = ServiceAccount {
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let names = &draft.names;
    let of = |name: String, component: &str, tenure: Tenure| {
        let object = draft.object(Kind::ServiceAccount, name).component(component);
        object.tenure(tenure).content(&account)
    };
    let mut accounts: Vec<Child> = draft
        .components()
        .into_iter()
        .map(|component| of(names.component(component), component.as_str(), Tenure::Owned))
        .collect();
    accounts.push(of(names.migration_account(), "migrate", Tenure::Owned));
    if database::own(draft) == Some(Place::StatefulSet) {
        // It stays as long as the pod that runs by it.
        accounts.push(of(names.database(), "db", draft.tenure_of_data()));
    }
    accounts
}
