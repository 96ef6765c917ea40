//! What a seed that fails leaves: the least that still fails, and how to repeat it.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{Outcome, Plan, run};

/// Runs a plan; a broken invariant and a panic become text.
///
/// # Errors
/// What was broken.
pub fn checked(plan: Plan) -> Result<Outcome, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(plan))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?"))
    })?;
    match &outcome.violation {
        Some(violation) => Err(violation.clone()),
        None => Ok(outcome),
    }
}

/// A run that broke an invariant, made as short as it goes.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub violation: String,
    without: Vec<&'static str>,
    milestones: u64,
}

impl Finding {
    /// Leaves out one kind of fault after the other, and then milestones, as long as anything is still broken.
    /// What is broken at the end may be another invariant than at first.
    pub fn shrunk(seed: u64, violation: String) -> Self {
        let plan = Plan::of_seed(seed);
        let mut finding = Self { seed, violation, without: Vec::new(), milestones: plan.milestones() };
        for fault in Plan::faults() {
            let mut less = finding.clone();
            less.without.push(fault);
            finding.take_if_it_fails(less);
        }
        let mut step = finding.milestones / 2;
        while step > 0 {
            let less = Self { milestones: finding.milestones.saturating_sub(step).max(1), ..finding.clone() };
            if less.milestones == finding.milestones || !finding.take_if_it_fails(less) {
                step /= 2;
            }
        }
        finding
    }

    fn take_if_it_fails(&mut self, less: Self) -> bool {
        match checked(less.plan()) {
            Ok(_) => false,
            Err(violation) => {
                *self = Self { violation, ..less };
                true
            }
        }
    }

    fn plan(&self) -> Plan {
        let plan = Plan::of_seed(self.seed).lasting(self.milestones);
        self.without.iter().fold(plan, |plan, fault| plan.clone().without(fault).unwrap_or(plan))
    }
}

/// The violation, and the arguments that repeat it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nrepeat it with: --seed {} --milestones {}",
            self.violation, self.seed, self.milestones
        )?;
        if !self.without.is_empty() {
            write!(f, " --without {}", self.without.join(","))?;
        }
        Ok(())
    }
}
