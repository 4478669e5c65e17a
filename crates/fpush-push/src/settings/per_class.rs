//! What the settings of a module say for each class of its pushes.

use super::Section;
use crate::Class;

/// One of it for each class of pushes.
#[derive(Clone, Debug)]
pub struct PerClass<T> {
    /// Of visible pushes.
    pub visible: T,
    /// Of silent pushes.
    pub silent: T,
    /// Of calls.
    pub voip: T,
}

impl<T> PerClass<T> {
    /// Reads the sections `visible`, `silent` and `voip`, each of which is given its name; one that is missing is empty. One
    /// whose pushes are not among those that the module `sends` is a warning, which names the key by which that is chosen.
    pub fn read<'a>(
        module: &mut Section<'a>,
        sends: &[Class],
        chosen_by: &str,
        mut read: impl FnMut(&mut Section<'a>, &'static str, Class) -> T,
    ) -> Self {
        let mut of_class = |name: &'static str, class| {
            let given = module.has(name);
            let mut section = module.section_or_empty(name);
            let value = read(&mut section, name, class);
            section.finish();
            if given && !sends.contains(&class) {
                module.warning(
                    name,
                    format_args!("this module sends no such pushes: see {chosen_by}"),
                );
            }
            value
        };
        Self {
            visible: of_class("visible", Class::High),
            silent: of_class("silent", Class::Low),
            voip: of_class("voip", Class::Voip),
        }
    }

    /// That of a class.
    #[must_use]
    pub fn of(&self, class: Class) -> &T {
        match class {
            Class::High => &self.visible,
            Class::Low => &self.silent,
            Class::Voip => &self.voip,
        }
    }
}
