//! Certificates from an ACME authority (RFC 8555): ordered, proven, kept and renewed while serving.
//!
//! Until the first one is there, and whenever none can be had, what was there before is served, for as many of
//! the names as it is good for: an authority that is down must not take the gateway with it (SECURITY T-11).

mod cache;
mod challenges;
mod choice;
mod client;
mod turns;

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, Key, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

pub use challenges::Challenges;

use self::cache::Cache;
use self::challenges::Offer;
use self::choice::{Choice, is_from, is_valid, kept, parse};
use self::client::Client;
use self::turns::Turns;
use super::listener::Endpoint;
use super::tls::{Certificate, Origin, TlsAcceptor};
use crate::clock::Clock;
use crate::settings::AcmeSettings;
use crate::telemetry::Telemetry;

/// Longest that an order takes, all its waits included.
const ORDER_TIME: Duration = Duration::from_mins(5);
/// Waits for the authority within an order.
const POLLS: RetryPolicy = RetryPolicy::new().timeout(Duration::from_mins(2));
/// Between two certificates, however short they are: authorities limit how many one name gets.
const RENEWALS_APART: Duration = Duration::from_hours(1);
/// Longest sleep: the clock of the machine may jump.
const SLEEP_MAX: Duration = Duration::from_hours(1);
/// After the first failure; three times as long after each further one.
const BACK_OFF_MIN: Duration = Duration::from_secs(30);
const BACK_OFF_MAX: Duration = Duration::from_hours(6);

/// Keeps the certificate of one listener fresh.
pub struct Keeper {
    settings: AcmeSettings,
    cache: Cache,
    endpoint: Arc<Endpoint>,
    challenges: Arc<Challenges>,
    telemetry: Telemetry,
    clock: Clock,
    issued: mpsc::UnboundedSender<()>,
    turn: Arc<Semaphore>,
    tell: watch::Sender<()>,
    news: watch::Receiver<()>,
    account: Option<Account>,
    ordered: Option<Duration>,
    failures: u32,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({:?})", self.settings.domains)
    }
}

/// What all keepers share.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// Where answers to challenges are shown.
    pub challenges: Arc<Challenges>,
    telemetry: Telemetry,
    clock: Clock,
    issued: mpsc::UnboundedSender<()>,
    turns: Turns,
    /// Tells keepers of what others have put into the cache.
    tell: watch::Sender<()>,
}

impl Keeping {
    /// With what hears of certificates that came into force.
    pub fn new(telemetry: &Telemetry, clock: &Clock) -> (Self, mpsc::UnboundedReceiver<()>) {
        let (tell, issued) = mpsc::unbounded_channel();
        let keeping = Self {
            challenges: Arc::default(),
            telemetry: telemetry.clone(),
            clock: clock.clone(),
            issued: tell,
            turns: Turns::default(),
            tell: watch::Sender::new(()),
        };
        (keeping, issued)
    }

    /// Has a listener begin with the best certificate that is there: one of those that `served` so far, or
    /// a kept one. Where none is good for any of its names, the one that was made for them stays.
    pub fn restore(
        &self,
        settings: &AcmeSettings,
        acceptor: &TlsAcceptor,
        served: Vec<Certificate>,
    ) -> anyhow::Result<()> {
        let mut found = kept(&Cache::new(settings), settings);
        found.extend(served);
        match Choice::of(found, settings, self.clock.now()) {
            None => Ok(()),
            Some(best) => acceptor.install(best.certificate, &settings.domains, best.order_due),
        }
    }
}

impl Keeper {
    /// For a listener that serves what [`Keeping::restore`] found.
    pub fn new(settings: AcmeSettings, endpoint: Arc<Endpoint>, keeping: Keeping) -> Self {
        Self {
            cache: Cache::new(&settings),
            turn: keeping.turns.of(&settings.directory),
            settings,
            endpoint,
            challenges: keeping.challenges,
            telemetry: keeping.telemetry,
            clock: keeping.clock,
            issued: keeping.issued,
            news: keeping.tell.subscribe(),
            tell: keeping.tell,
            account: None,
            ordered: None,
            failures: 0,
        }
    }

    /// Orders a certificate whenever one is due. Never returns: it is dropped.
    pub async fn keep(mut self) {
        self.note_uncovered();
        self.note_stand_ins();
        loop {
            let wait = self.due_in();
            if !wait.is_zero() {
                sleep(wait.min(SLEEP_MAX)).await;
                continue;
            }
            let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else {
                return; // Nobody closes it.
            };
            // Another listener may have got one that will do.
            if self.take_up() {
                continue;
            }
            let ordered = timeout(ORDER_TIME, self.renew()).await;
            drop(turn);
            let ordered = ordered.unwrap_or_else(|elapsed| Err(elapsed.into()));
            self.telemetry.metrics.acme_order(ordered.is_ok());
            match ordered {
                Ok(()) => {
                    self.failures = 0;
                    self.ordered = Some(self.clock.monotonic());
                    tracing::info!(listener = &*self.endpoint.name, "certificate issued");
                }
                Err(error) => {
                    let wait = jittered(back_off(self.failures));
                    self.failures = self.failures.saturating_add(1);
                    let retry_seconds = wait.as_secs();
                    tracing::error!(
                        listener = &*self.endpoint.name,
                        authority = &*self.settings.directory,
                        retry_seconds,
                        "no certificate from the ACME authority: {error:#}"
                    );
                    self.wait(wait).await;
                }
            }
        }
    }

    /// Waits before the next attempt; no longer than until a certificate is there that another listener got.
    async fn wait(&mut self, time: Duration) {
        let end = sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Ok(()) = self.news.changed() => if self.take_up() {
                    return;
                },
            }
        }
    }

    /// Serves a certificate of the cache, if one has come there that makes an order needless.
    fn take_up(&mut self) -> bool {
        self.news.borrow_and_update();
        let now = self.clock.now();
        let best = Choice::of(kept(&self.cache, &self.settings), &self.settings, now);
        let tls = self.endpoint.tls.load_full();
        let (Some(best), Some(acceptor)) = (best, tls.as_ref()) else {
            return false;
        };
        if best.order_due <= now {
            return false;
        }
        let domains = &self.settings.domains;
        if let Err(error) = acceptor.install(best.certificate, domains, best.order_due) {
            tracing::warn!("a kept ACME certificate cannot be used: {error:#}");
            return false;
        }
        self.failures = 0;
        self.issued.send(()).ok();
        tracing::info!(
            listener = &*self.endpoint.name,
            "certificate of another listener taken up"
        );
        true
    }

    /// Senders refuse what they get for these names: that must not be silent.
    fn note_uncovered(&self) {
        let tls = self.endpoint.tls.load_full();
        let uncovered = tls
            .as_ref()
            .map(|tls| tls.uncovered(&self.settings.domains));
        let names = uncovered.unwrap_or_default().join(", ");
        if !names.is_empty() {
            tracing::warn!(
                listener = &*self.endpoint.name,
                names,
                "no certificate is there for these names yet: they get a self-signed one until the ACME authority has issued one"
            );
        }
    }

    /// Nor must a certificate be silent that senders may refuse for what else it is.
    fn note_stand_ins(&self) {
        let tls = self.endpoint.tls.load_full();
        let served = tls.as_deref().map(TlsAcceptor::certificates);
        let listener = &*self.endpoint.name;
        for certificate in served.unwrap_or_default() {
            if !is_valid(&certificate, self.clock.now()) {
                tracing::warn!(
                    listener,
                    "the certificate that is served has ended or not begun yet by the clock of this machine: senders may refuse it until the ACME authority has issued another"
                );
            }
            if let Origin::Authority(authority) = certificate.origin()
                && !is_from(&certificate, &self.settings)
            {
                tracing::warn!(
                    listener,
                    authority = &**authority,
                    "the certificate that is served is from another ACME authority: senders may refuse it until the configured one has issued another"
                );
            }
        }
    }

    /// How long the present certificate will do: until a third of its time is left.
    fn due_in(&self) -> Duration {
        let tls = self.endpoint.tls.load();
        let due = tls.as_deref().and_then(TlsAcceptor::order_due);
        let left = due.map_or(0, |due| due.millis_since(self.clock.now()));
        let since = |ordered| self.clock.monotonic().saturating_sub(ordered);
        due_in(left, self.ordered.map(since))
    }

    async fn renew(&mut self) -> anyhow::Result<()> {
        // Better known before an order is spent than after it.
        if let Err(error) = self.cache.try_out() {
            let cache = self.settings.cache.display();
            tracing::error!(%cache, %error, "the ACME cache cannot be written: after a restart all is ordered anew");
        }
        let account = self.account().await?;
        let ordered = self.order(&account).await;
        if ordered.as_ref().is_err_and(is_account_gone) {
            // The authority has lost it, or closed it: the next order is that of a new one.
            self.account = None;
            self.cache.forget_account(account.id())?;
        }
        let pem = ordered?;
        let tls = self.endpoint.tls.load_full();
        let acceptor = tls.as_ref().context("the listener has no TLS")?;
        let certificate = parse(&pem, &self.settings).context("what the authority issued")?;
        for domain in &self.settings.domains {
            let is_covered = certificate.covers(domain);
            anyhow::ensure!(is_covered, "the certificate is not for `{domain}`");
        }
        let order_due = certificate.validity().last_third();
        acceptor.install(certificate, &self.settings.domains, order_due)?;
        // The program may be ending; then nobody needs to know.
        self.issued.send(()).ok();
        // It is served all the same: the next process would have to order anew.
        if let Err(error) = self.cache.keep_certificate(&pem) {
            let cache = self.settings.cache.display();
            tracing::error!(%cache, %error, "the ACME certificate cannot be kept");
        }
        self.tell.send_replace(());
        Ok(())
    }

    /// The account: of this process, of the cache, or a new one.
    async fn account(&mut self) -> anyhow::Result<Account> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let client = Client::new(self.settings.ca.as_deref())?;
        let builder = Account::builder_with_http(Box::new(client));
        let account = if let Some(credentials) = self.kept_account()? {
            builder.from_credentials(credentials).await?
        } else {
            let contact = self.settings.email.as_ref();
            let contact: Vec<String> = contact
                .map(|to| format!("mailto:{to}"))
                .into_iter()
                .collect();
            let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
            let wanted = NewAccount {
                contact: &contact,
                terms_of_service_agreed: true,
                only_return_existing: false,
            };
            let directory = self.settings.directory.clone();
            let (account, credentials) = builder.create(&wanted, directory, None).await?;
            let json = Zeroizing::new(serde_json::to_string(&credentials)?);
            if let Err(error) = self.cache.keep_account(&json) {
                let cache = self.settings.cache.display();
                tracing::error!(%cache, %error, "the ACME account cannot be kept");
            }
            account
        };
        self.account = Some(account.clone());
        Ok(account)
    }

    /// The account of the cache. One that is damaged is set aside: nobody would mend it.
    fn kept_account(&self) -> anyhow::Result<Option<AccountCredentials>> {
        let credentials = match self.cache.account() {
            Ok(None) => return Ok(None),
            Ok(Some(json)) => credentials(&json),
            Err(error) if error.kind() == ErrorKind::InvalidData => None,
            Err(error) => return Err(error).context("the ACME cache"),
        };
        if credentials.is_none() {
            let file = self.cache.account_file().display();
            match self.cache.set_account_aside() {
                Ok(aside) => {
                    let aside = aside.display();
                    tracing::warn!(%file, %aside, "the kept ACME account is damaged: it is set aside, and a new one made");
                }
                Err(error) => {
                    tracing::warn!(%file, %error, "the kept ACME account is damaged and cannot be set aside: a new one is made");
                }
            }
        }
        Ok(credentials)
    }

    /// Proves every name, and gets a certificate with a new key: both, in PEM.
    async fn order(&self, account: &Account) -> anyhow::Result<Zeroizing<String>> {
        let names: Vec<_> = self
            .settings
            .domains
            .iter()
            .map(|name| Identifier::Dns(name.clone()))
            .collect();
        let mut order = account.new_order(&NewOrder::new(&names)).await?;
        // Held until the authority has looked.
        let _offer = self.offer(&mut order).await?;
        match order.poll_ready(&POLLS).await? {
            OrderStatus::Ready => {}
            other => anyhow::bail!(
                "the order is {other:?}: {}",
                why(&mut order).await.unwrap_or_default()
            ),
        }
        let mut params = CertificateParams::new(self.settings.domains.clone())?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate()?;
        order
            .finalize_csr(params.serialize_request(&key)?.der())
            .await?;
        let chain = order.poll_certificate(&POLLS).await?;
        let key = Zeroizing::new(key.serialize_pem());
        Ok(Zeroizing::new(format!("{chain}\n{}", key.as_str())))
    }

    /// Shows the answers to an order's challenges, and asks the authority to look.
    async fn offer(&self, order: &mut Order) -> anyhow::Result<Offer> {
        let mut offer = Offer::new(&self.challenges);
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => continue,
                other => anyhow::bail!("an authorization is {other:?}"),
            }
            let kind = self.challenge(&authorization.challenges);
            let mut challenge = authorization
                .challenge(kind.clone())
                .context("the authority offers neither TLS-ALPN-01 nor HTTP-01")?;
            let proof = challenge.key_authorization();
            if kind == ChallengeType::TlsAlpn01 {
                let Identifier::Dns(name) = challenge.identifier().identifier else {
                    anyhow::bail!("the authority asks about something that is no name");
                };
                let name = name.clone();
                offer.tls(&name, proof.digest().as_ref())?;
            } else {
                offer.http(&challenge.token, proof.as_str());
            }
            challenge.set_ready().await?;
        }
        Ok(offer)
    }

    /// TLS-ALPN-01 and HTTP-01 in turn: which of our ports the authority can reach is not known here.
    fn challenge(&self, offered: &[instant_acme::Challenge]) -> ChallengeType {
        let is_offered = |kind: &ChallengeType| offered.iter().any(|one| one.r#type == *kind);
        let mut kinds = [ChallengeType::TlsAlpn01, ChallengeType::Http01];
        if self.failures % 2 == 1 {
            kinds.reverse();
        }
        let [first, second] = kinds;
        if is_offered(&first) { first } else { second }
    }
}

/// What an account is used with; `None` when it is damaged.
fn credentials(json: &str) -> Option<AccountCredentials> {
    let credentials: AccountCredentials = serde_json::from_str(json).ok()?;
    let key = credentials.private_key().clone_key();
    Key::from_pkcs8_der(key).is_ok().then_some(credentials)
}

/// Whether the authority knows the account no longer, or has closed it (RFC 8555 6.7 and 7.3.6).
fn is_account_gone(error: &anyhow::Error) -> bool {
    let Some(instant_acme::Error::Api(problem)) = error.downcast_ref() else {
        return false;
    };
    let kind = problem.r#type.as_deref().unwrap_or_default();
    // The same kind is of names that the account may have no certificate for: only the text tells.
    let is_of_account = || {
        let detail = problem.detail.as_deref().unwrap_or_default();
        let detail = detail.to_ascii_lowercase();
        let ends = ["deactivated", "revoked", "not valid", "not active"];
        detail.contains("account") && ends.iter().any(|end| detail.contains(end))
    };
    match kind.strip_prefix("urn:ietf:params:acme:error:") {
        Some("accountDoesNotExist") => true,
        Some("unauthorized") => is_of_account(),
        _ => false,
    }
}

/// What the authority found, for the log.
async fn why(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let state = authorization.refresh().await.ok()?;
        let problem = state.challenges.iter().find_map(|one| one.error.as_ref());
        if let Some(problem) = problem {
            return Some(problem.to_string());
        }
    }
    None
}

/// How long an order is not due: `left` are the milliseconds until it is by the certificate, which may always
/// have been due when the clock is ahead; `ordered` is how long ago one succeeded.
fn due_in(left: i64, ordered: Option<Duration>) -> Duration {
    let left = Duration::from_millis(u64::try_from(left).unwrap_or_default());
    let apart = ordered.map_or(Duration::ZERO, |ago| RENEWALS_APART.saturating_sub(ago));
    left.max(apart)
}

fn back_off(failures: u32) -> Duration {
    BACK_OFF_MIN
        .saturating_mul(3_u32.saturating_pow(failures))
        .min(BACK_OFF_MAX)
}

/// Up to a fifth more, so that replicas that failed together do not come back together.
fn jittered(wait: Duration) -> Duration {
    // Without randomness there is no TLS either.
    let part = getrandom::u32().unwrap_or_default() % 200;
    wait + wait * part / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_that_succeed_are_apart_however_long_one_has_been_due() {
        let minutes = Duration::from_mins;
        assert_eq!(due_in(-1, None), Duration::ZERO);
        assert_eq!(due_in(60_000, None), minutes(1));
        for left in [i64::MIN, -1, 0, 60_000] {
            assert_eq!(due_in(left, Some(Duration::ZERO)), RENEWALS_APART);
            assert_eq!(due_in(left, Some(minutes(50))), minutes(10));
        }
        assert_eq!(due_in(-1, Some(minutes(61))), Duration::ZERO);
        assert_eq!(due_in(7_200_000, Some(minutes(1))), minutes(120));
    }

    #[test]
    fn an_account_that_is_gone_is_told_from_a_name_that_is_refused() {
        let of = |kind: &str, detail: &str| {
            let problem = serde_json::json!({ "type": kind, "detail": detail, "status": 403 });
            let problem = serde_json::from_value(problem).unwrap();
            is_account_gone(&instant_acme::Error::Api(problem).into())
        };
        let unauthorized = "urn:ietf:params:acme:error:unauthorized";
        assert!(of("urn:ietf:params:acme:error:accountDoesNotExist", "gone"));
        // Boulder's words, and what others may say.
        let deactivated = "Account is not valid, has status \"deactivated\"";
        assert!(of(unauthorized, deactivated));
        assert!(of(unauthorized, "Account has been deactivated"));
        assert!(!of(unauthorized, "the account may not have this name"));
        assert!(!of("urn:ietf:params:acme:error:rateLimited", deactivated));
    }

    #[test]
    fn failures_are_waited_out_for_longer_each_time() {
        // SECURITY T-11
        let waits: Vec<u64> = (0..8).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(waits, [30, 90, 270, 810, 2430, 7290, 21_600, 21_600]);
        assert_eq!(back_off(u32::MAX), BACK_OFF_MAX);
        for _ in 0..100 {
            let wait = jittered(BACK_OFF_MIN);
            assert!((BACK_OFF_MIN..BACK_OFF_MIN * 6 / 5).contains(&wait));
        }
    }
}
