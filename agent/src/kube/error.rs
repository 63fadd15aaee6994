//! What the API has to say when it refuses.

/// An error of kube in one line: of the server's word the sentence alone, of others what caused them too.
pub(super) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => crate::exit::chain(error),
    }
}
